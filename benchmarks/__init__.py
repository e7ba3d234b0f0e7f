"""What the figures come from: one script per area, one table each."""
