"""What is measured and drawn on held-out people."""
