"""Models that workloads measure: named sizes, weights without files, tensor parallelism by
transformers, what fits into memory, and repeats with their spread; and the devices that all ranks
compute on. Needs torch, and but for :mod:`devices` transformers.

    from orchestrate_models.loading import ModelOptions, load_model
"""
