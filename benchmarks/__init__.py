"""What the service costs, measured side by side with the least that could do the same."""
