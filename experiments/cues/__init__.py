"""What the discriminator's decision depends on: context, frequencies, amount and place of the damage."""
