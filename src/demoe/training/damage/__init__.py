"""What goes wrong with pictures beside blur: noise, haze, rain, darkness."""
