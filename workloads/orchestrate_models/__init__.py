"""Models that workloads measure: named sizes, weights without files, tensor parallelism by
transformers, what fits into memory, and repeats with their spread. Needs torch and transformers.

    from orchestrate_models.loading import ModelOptions, load_model
"""
