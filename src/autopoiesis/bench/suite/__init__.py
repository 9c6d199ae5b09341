"""The published comparison: cells to be won or lost, who plays in them, and what came of it."""
