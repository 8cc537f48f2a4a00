"""Reports on what was answered, when and how: terminal and HTML."""
