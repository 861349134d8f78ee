"""Mathematics of execution in closed form: trajectories, impact, volume curves. No order ever passes through here."""
