"""What runs in the environments of the peers: none of it imports ours."""
