"""Damaged and malicious files of all kinds, by seeds: `corpus` makes them, `mutators` spoils them,
`attempts` reads them, `guard` does so in processes that may die."""
