"""What captures say: from samples of GPUs and kernels of ranks to figures."""
