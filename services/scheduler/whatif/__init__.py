"""What-if: advice about a request for a tune, and an estimate of what it takes."""
