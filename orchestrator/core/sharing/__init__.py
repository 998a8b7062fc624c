"""Who does which part of divisible work and of a training without collectives."""
