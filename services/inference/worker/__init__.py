"""The GPU side of image generation: claims requests, keeps models loaded, draws."""
