"""The machine: driver, kernel, operating system, disks, limits, containers."""
