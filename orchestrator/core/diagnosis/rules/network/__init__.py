"""What passes between nodes: fabric, sockets, NCCL, rendezvous, collectives, servers."""
