"""Fine-tuning beside other trainers: material, figures and their pages."""
