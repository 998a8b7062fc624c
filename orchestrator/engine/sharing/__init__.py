"""Work shared over SSH alone: leased samples and averaged trainings."""
