"""Programs around the project, started by the files without an extension: manual tests, attacks, benchmarks, figures.

harness         swarms of real node processes, and tools for programs and tests
scenarios       a swarm on this machine answers a prompt while something happens to it
attacks         strangers, members and serving peers that attack real nodes
mutations       faults planted in a copy of the tree, each of which a test must notice
forging         forged results at the gate that every result of a peer passes
soaking         an hour of random faults
fuzzing         every decoder under inputs that no encoder writes
killing         a process that is killed at every write
networks        nodes in network namespaces, and many nodes at once
membership_lab  membership of a swarm in simulated time
privacy_lab     what peers could learn, recorded and computed
benchmarks      figures of one machine
story           the training of the built-in model
documents       tables, vectors and pictures of README.md and SPEC.md, made from the code and from a real run
"""
