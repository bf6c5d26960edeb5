"""What is measured after the fact or on the side: on copies, away from the training process."""
