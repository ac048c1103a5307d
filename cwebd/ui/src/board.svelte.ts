// What the page knows. Each machine is an object of its own with fine-grained state: a new load repaints one tile, and the
// order of the tiles is computed anew only when a state or a severity changes.

import type { DeltaMessage, EventRow, HostRow, IncidentRow, Load, Severity, State, StateMessage } from './types'

/** Recent events that are shown; cwebd keeps as many. */
const MAX_EVENTS = 200
/** Points of a chart, one a second: five minutes. */
const MAX_POINTS = 300

const SEVERITIES: Severity[] = ['DEBUG', 'INFO', 'WARN', 'ERR', 'CRIT']

export function badness(severity: Severity | null): number {
  return severity === null ? -1 : SEVERITIES.indexOf(severity)
}

export type Mark = 'up' | 'down' | 'unknown' | 'alarm'

export interface Point {
  time: number
  load: Load
}

export class Host {
  readonly name: string
  state = $state<State>('unknown')
  since = $state(0)
  severity = $state<Severity | null>(null)
  open = $state(0)
  load = $state.raw<Load>({ mean: null, cpu: null, memory: null, disk: null, mount: null, load_per_core: null })
  /** The last minutes. Not reactive: the chart draws when it is time to. */
  readonly history: Point[] = []

  constructor(row: HostRow) {
    this.name = row.host
    this.take(row)
  }

  take(row: HostRow) {
    this.state = row.state
    this.since = row.since
    this.severity = row.severity
    this.open = row.open
    this.load = row.load
  }

  remember(time: number) {
    this.history.push({ time, load: this.load })
    if (this.history.length > MAX_POINTS) this.history.shift()
  }

  get mark(): Mark {
    if (this.state === 'down') return 'down'
    if (this.state === 'unknown') return 'unknown'
    return this.open > 0 ? 'alarm' : 'up'
  }

  /** More is worse: down, then by the worst incident, unknown before a warning. */
  get rank(): number {
    if (this.state === 'down') return 10
    const severity = badness(this.severity)
    return Math.max(severity, this.state === 'unknown' ? 2.5 : -1)
  }
}

class Board {
  #hosts = new Map<string, Host>()
  #incidents = new Map<string, IncidentRow>()
  /** In no order; `sorted` has one. */
  #list = $state.raw<Host[]>([])
  #open = $state.raw<IncidentRow[]>([])
  events = $state.raw<EventRow[]>([])
  moreIncidents = $state(0)
  version = $state('')
  user = $state<string | null>(null)
  canLogIn = $state(false)
  /** The first state has come. */
  isLoaded = $state(false)

  readonly sorted = $derived(
    this.#list.toSorted((a, b) => b.rank - a.rank || a.name.localeCompare(b.name, 'en', { numeric: true })),
  )
  readonly incidents = $derived(
    this.#open.toSorted((a, b) => badness(b.severity) - badness(a.severity) || a.since - b.since),
  )
  readonly worst = $derived(this.incidents[0]?.severity ?? null)
  readonly problems = $derived(this.#open.length + this.moreIncidents)
  readonly unknown = $derived(this.#list.filter((host) => host.state === 'unknown').length)

  host(name: string): Host | undefined {
    return this.#list.find((host) => host.name === name)
  }

  replace({ user, can_log_in, board }: StateMessage) {
    const hosts = new Map<string, Host>()
    for (const row of board.hosts) {
      // The same object: its chart goes on after a reconnection.
      const host = this.#hosts.get(row.host) ?? new Host(row)
      host.take(row)
      hosts.set(row.host, host)
    }
    this.#hosts = hosts
    this.#list = [...hosts.values()]
    this.#incidents = new Map(board.incidents.map((row) => [row.incident, row]))
    this.#open = board.incidents
    this.moreIncidents = board.more_incidents
    this.events = board.events
    this.version = board.version
    this.user = user
    this.canLogIn = can_log_in
    this.isLoaded = true
  }

  apply(delta: DeltaMessage) {
    for (const [name, load] of Object.entries(delta.loads ?? {})) {
      const host = this.#hosts.get(name)
      if (host) host.load = load
    }
    let isOther = false
    for (const row of delta.hosts ?? []) {
      const host = this.#hosts.get(row.host)
      if (host) host.take(row)
      else {
        this.#hosts.set(row.host, new Host(row))
        isOther = true
      }
    }
    for (const name of delta.gone ?? []) isOther = this.#hosts.delete(name) || isOther
    if (isOther) this.#list = [...this.#hosts.values()]
    if (delta.opened || delta.closed) {
      for (const row of delta.opened ?? []) this.#incidents.set(row.incident, row)
      for (const id of delta.closed ?? []) this.#incidents.delete(id)
      this.#open = [...this.#incidents.values()]
    }
    this.moreIncidents = delta.more_incidents
    if (delta.events) {
      const fresh = new Set(delta.events.map((row) => row.id))
      this.events = [...delta.events, ...this.events.filter((row) => !fresh.has(row.id))].slice(0, MAX_EVENTS)
    }
  }

  /** Each second, one more point for every chart. */
  remember(time: number) {
    for (const host of this.#hosts.values()) host.remember(time)
  }
}

export const board = new Board()
