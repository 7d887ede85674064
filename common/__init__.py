"""What both builds share; see docs/tour.md."""

__version__ = "0.1.0"
