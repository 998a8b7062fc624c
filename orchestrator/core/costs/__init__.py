"""What a step costs before it is run, from the shapes of model and machine. Pure.

ModelShape, Device, Link, Fabric   what there is; constants come from hardware files, with sources
collectives, expert_load           formulas of communication, and of experts that get unequal work
training_step, inference_step      the terms of a step: physics alone, without a coefficient
estimate, fitting                  coefficients that weigh terms, how well they are known, and how
                                   they are fitted to measured points
"""
