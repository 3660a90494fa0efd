"""What is plugged into the ports. One product or technique per module; strangers to each other."""
