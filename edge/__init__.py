"""The agent on the device: it routes every request and answers within its budget."""
