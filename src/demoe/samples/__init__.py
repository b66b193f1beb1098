"""The bundled pictures, and what a demo makes of them."""
