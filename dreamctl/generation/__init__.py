"""From a prompt to pictures: plan → pipeline → pictures with their metadata."""
