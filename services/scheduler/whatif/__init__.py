"""What a tune would take: findings about its images, and an estimate."""
