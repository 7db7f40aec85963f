"""Zero-1-to-3 (arXiv 2303.11328): any object from one picture, seen from other sides."""
