// What a person looks at, kept in the URL after `#`, so that a reload or a link shows the same.

class Place {
  filter = $state('')
  host = $state<string | null>(null)
  /** A moment, in milliseconds of Unix time: what happened in its minute stands out among the events. */
  at = $state<number | null>(null)

  constructor() {
    this.#read()
    addEventListener('hashchange', () => this.#read())
  }

  #read() {
    const fields = new URLSearchParams(location.hash.slice(1))
    this.filter = fields.get('filter') ?? ''
    this.host = fields.get('host')
    const at = Number(fields.get('at') ?? NaN)
    this.at = Number.isSafeInteger(at) ? at : null
  }

  /** Writes what is looked at into the URL; the browser's history stays as it is. */
  write() {
    const fields = new URLSearchParams()
    if (this.host !== null) fields.set('host', this.host)
    if (this.filter !== '') fields.set('filter', this.filter)
    if (this.at !== null) fields.set('at', String(this.at))
    const hash = fields.toString()
    const wanted = hash === '' ? location.pathname : `#${hash}`
    if (location.hash.slice(1) !== hash) history.replaceState(null, '', wanted)
  }
}

export const place = new Place()
