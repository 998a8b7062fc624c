"""The program and its libraries: builds, models, trainers, servers of models, exceptions."""
