// Follows cwebd, for ever, and knows how old what is shown may be.
//
// EventSource reconnects by itself when the connection breaks, but not after an answer that is no stream, and it does not
// notice a connection that is merely dead: a watchdog does, since cwebd says something every second.

import { board } from './board.svelte'
import type { BeatMessage, DeltaMessage, PublisherRow, StateMessage } from './types'

/** No beat of cprocessd for so long, and what is shown is stale. */
const STALE_AFTER_MS = 3000
/** No word of cwebd for so long, and the connection is dead. */
const DEAD_AFTER_MS = 5000
const RETRY_MS = 1500

export type Freshness = 'connecting' | 'live' | 'stale' | 'offline'

class Connection {
  #source: EventSource | undefined
  #retry: ReturnType<typeof setTimeout> | undefined
  /** By `performance.now()`, which does not jump. */
  #heardAt = performance.now()
  #publishers = $state.raw<(PublisherRow & { at: number })[]>([])
  #isOpen = $state(false)
  /** This moment by the clock of the server, whole seconds: what counts durations. */
  now = $state(Date.now())
  #offset = 0
  /** Advances twice a second. */
  #tick = $state(performance.now())

  /** The age of the newest data, of the publisher that has been silent the longest; null if one was never heard. */
  readonly age = $derived.by(() => {
    const ages = this.#publishers.map((row) => (row.age_ms === null ? null : row.age_ms + Math.max(0, this.#tick - row.at)))
    return ages.length === 0 || ages.includes(null) ? null : Math.max(...(ages as number[]))
  })
  /** Those of whom nothing was heard lately. */
  readonly silent = $derived(
    this.#publishers
      .filter((row) => row.age_ms === null || row.age_ms + Math.max(0, this.#tick - row.at) >= STALE_AFTER_MS)
      .map((row) => row.name),
  )
  readonly freshness = $derived<Freshness>(
    !board.isLoaded && !this.#isOpen
      ? 'connecting'
      : !this.#isOpen
        ? 'offline'
        : this.age === null || this.age >= STALE_AFTER_MS
          ? 'stale'
          : 'live',
  )
  /** When the newest data came, by the clock of the server. */
  readonly since = $derived(this.age === null ? null : this.now - this.age)

  start() {
    this.#connect()
    setInterval(() => {
      this.#tick = performance.now()
      const now = Math.floor((Date.now() + this.#offset) / 1000) * 1000
      if (now !== this.now) this.now = now
      if (this.#source && this.#tick - this.#heardAt > DEAD_AFTER_MS) this.#again()
    }, 500)
    // A laptop that was asleep should not wait for the watchdog.
    addEventListener('online', () => this.#again())
  }

  #connect() {
    this.#heardAt = performance.now()
    const source = new EventSource('/api/live')
    this.#source = source
    const on = <T>(type: string, take: (message: T) => void) =>
      source.addEventListener(type, (event: MessageEvent<string>) => {
        this.#heardAt = performance.now()
        this.#isOpen = true
        take(JSON.parse(event.data) as T)
      })
    on<StateMessage>('state', (message) => {
      board.replace(message)
      this.#heard(message.board.now, message.board.publishers)
    })
    on<DeltaMessage>('delta', (message) => board.apply(message))
    on<BeatMessage>('beat', (message) => {
      this.#heard(message.now, message.publishers)
      board.remember(message.now)
    })
    source.onerror = () => {
      this.#isOpen = false
      // It tries again by itself unless the answer was no stream.
      if (source.readyState === EventSource.CLOSED) void this.#refused()
    }
  }

  #heard(now: number, publishers: PublisherRow[]) {
    this.#offset = now - Date.now()
    const at = performance.now()
    this.#tick = at
    this.#publishers = publishers.map((row) => ({ ...row, at }))
  }

  /** Logged out, or the server is full: the first leads to the form, the second passes. */
  async #refused() {
    const answer = await fetch('/api/state', { method: 'HEAD' }).catch(() => undefined)
    if (answer?.status === 401) location.assign('/login')
    else this.#later()
  }

  #again() {
    this.#isOpen = false
    this.#source?.close()
    this.#source = undefined
    this.#later()
  }

  #later() {
    clearTimeout(this.#retry)
    this.#source?.close()
    this.#source = undefined
    this.#retry = setTimeout(() => this.#connect(), RETRY_MS)
  }
}

export const connection = new Connection()
