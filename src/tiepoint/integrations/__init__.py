"""tiepoint in the form that other programs expect."""
