"""What people look at results with: the viewer, and the demo."""
