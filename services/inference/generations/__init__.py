"""Generations: requests for images that are kept in a history, drawn in the background, and watched while they are drawn."""
