"""Files from the network or a hub: whole, checked, unpacked where they belong."""
