"""How planes are cut: integers only."""
