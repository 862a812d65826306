"""What both GPU workers need for models: checkpoints, pipelines, samplers and edges. Imports torch."""
