import { type FSWatcher, watch } from 'node:fs'
import { realpath, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Watchers of the folders that some files are in: where their paths say, and where links lead. A file itself is not watched: renaming
 * another to its name, or a ConfigMap's swap of the link `..data` (Kubernetes: pkg/volume/util/atomic_writer.go), would leave the watcher with the old one.
 */
export class WatchedFolders {
  readonly #onEvent: () => void
  /** By path; `inode` tells when another folder has that path, of which the watcher would not hear. */
  readonly #watchers = new Map<string, { readonly watcher: FSWatcher; readonly inode: string }>()

  constructor(onEvent: () => void) {
    this.#onEvent = onEvent
  }

  /** Watches the folders of these files and no others. What cannot be watched is left out; the caller looks by itself from time to time. */
  async watch(files: readonly string[]): Promise<void> {
    const inodes = new Map<string, string>()
    for (const file of files) {
      for (const folder of new Set([dirname(file), dirname(await realpath(file).catch(() => file))])) {
        const stats = await stat(folder, { bigint: true }).catch(() => undefined)
        if (stats !== undefined) inodes.set(folder, `${stats.dev} ${stats.ino}`)
      }
    }
    for (const [folder, { inode }] of this.#watchers) if (inodes.get(folder) !== inode) this.#drop(folder)
    for (const [folder, inode] of inodes) if (!this.#watchers.has(folder)) this.#add(folder, inode)
  }

  close(): void {
    for (const folder of this.#watchers.keys()) this.#drop(folder)
  }

  #add(folder: string, inode: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, this.#onEvent)
      watcher.on('error', () => this.#drop(folder))
      this.#watchers.set(folder, { watcher, inode })
    } catch {
      // ENOSPC, EMFILE: no watches left
    }
  }

  #drop(folder: string): void {
    this.#watchers.get(folder)?.watcher.close()
    this.#watchers.delete(folder)
  }
}
