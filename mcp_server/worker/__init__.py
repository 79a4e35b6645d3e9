"""Runs INSIDE the sandbox: standard library only, relative imports only, syntax of Python 3.9.

The host imports `frames` from here and nothing else. Where to look:

    the wire                frames                   both sides; its last section is the zygote's
    the cell                start, zygote            forks workers, hears of their ends, never runs user code
                            preload, packing, backing, mappings, packets, reaping, statedir, trees
                            plain, rooms, oneroom    how workers are housed, one module for each kind of tier
      built by              builder, bubble          namespaces, or bubblewrap
                            view, workspace          what files it can see
                            nursery, holder          rooms, built ahead; what holds each
                            undertaker               lets go of them, so that nobody waits for the kernel
    confinement             birth                    from a fork to a process that may run user code
                            confine, seccomp/, tags  limits, Landlock, capabilities, system calls; the mark of a context
                            linux, memory            system calls that the standard library lacks
                            forkhooks                what a fork of the zygote need not do
                            trials                   what works on this machine
    the interpreter         main, channel, rebirth   the door, its socket, what a fork must not share
      a run                 runner, cells, commands, coroutines, sources, interrupts, streams
      an exception          tracebacks, stacks, hints, network
      a value               display, forms, plaintext, tables, figures, drawing, png, images, viewers, afterimport
"""
