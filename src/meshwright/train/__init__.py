"""Training: pictures of many objects in, the weights of a reconstruction model out.

A recipe (`recipes`) is a `TrainConfig`; `loop` runs it and knows nothing of stages; `stage1` (volume rendering) and
`stage2` (meshes) turn a batch into named losses; `runs` keeps what happened on disk, so that any run can go on.
Needs the extra ``train``.
"""
