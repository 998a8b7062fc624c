"""Programs that run under the interpreter of the ranks, where torch is."""
