import type { EventTarget, Watch } from './loop.ts'

/** A watch, and by which numbers the kernel tells of it. */
export class Slot implements Watch {
  readonly fd: number
  readonly index: number
  readonly generation: number
  target: EventTarget

  constructor(fd: number, index: number, generation: number, target: EventTarget) {
    this.fd = fd
    this.index = index
    this.generation = generation
    this.target = target
  }
}

/** The watches of an epoll set by their numbers. One that has ended is not found any more, also when its place is another's. */
export class WatchTable {
  readonly #slots: (Slot | undefined)[] = []
  readonly #free: number[] = []
  #generation = 0
  size = 0

  add(fd: number, target: EventTarget): Slot {
    const index = this.#free.pop() ?? this.#slots.length
    this.#generation = (this.#generation + 1) >>> 0
    const slot = new Slot(fd, index, this.#generation, target)
    this.#slots[index] = slot
    this.size++
    return slot
  }

  find(index: number, generation: number): Slot | undefined {
    const slot = this.#slots[index]
    return slot?.generation === generation ? slot : undefined
  }

  /** False when it had ended before. */
  delete(slot: Slot): boolean {
    if (this.#slots[slot.index] !== slot) return false
    this.#slots[slot.index] = undefined
    this.#free.push(slot.index)
    this.size--
    return true
  }
}
