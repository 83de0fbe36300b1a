"""How fast the lab is, measured on this machine by turns with what it is compared with."""
