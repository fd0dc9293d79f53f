"""Running networks and measuring them; tables and figures of what was measured."""
