"""What every part of the agent uses: frames, files, leases."""
