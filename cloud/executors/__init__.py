"""What carries out batches: threads of this process, other processes, or a Ray cluster."""
