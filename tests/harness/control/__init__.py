"""Programs with loops and choices, and what they are compared with."""
