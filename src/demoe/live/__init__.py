"""Results that are looked at while they are made: what comes next, what is shown, what is kept."""
