// What this viewer prefers. Only what works is here.
import type { ReactNode } from "react";
import type { Settings } from "../app/settings";
import { useApp, usePage } from "./hooks";

function Choice<K extends "theme" | "motion" | "sound">({ of, legend, options }: { of: K; legend: string; options: readonly (readonly [Settings[K], string, string])[] }): ReactNode {
  const app = useApp();
  const { settings } = usePage();
  return (
    <fieldset className="pref">
      <legend className="sr">{legend}</legend>
      {options.map(([value, name, words]) => (
        <label key={value}>
          <input type="radio" name={of} checked={settings[of] === value} onChange={() => app.set({ [of]: value })} />
          <b>{name}</b>
          <small>{words}</small>
        </label>
      ))}
    </fieldset>
  );
}

export function SettingsView(): ReactNode {
  const app = useApp();
  const { settings } = usePage();
  return (
    <div className="view settings">
      <section className="card">
        <h2>Theme</h2>
        <Choice
          of="theme"
          legend="Theme"
          options={[
            ["system", "System", "As this computer is set."],
            ["night", "Night", "A signal box at night."],
            ["day", "Day", "A printed timetable by day."],
          ]}
        />
      </section>
      <section className="card">
        <h2>Sound</h2>
        <Choice
          of="sound"
          legend="Sound"
          options={[
            ["one", "One seat", "Listening to one seat mutes the others. Shift keeps them."],
            ["mix", "Mix", "Every seat that you listen to, at once."],
          ]}
        />
        <label className="field">
          Volume
          <input type="range" min="0" max="1" step="0.05" value={settings.volume} onChange={(event) => app.set({ volume: Number(event.currentTarget.value) })} />
        </label>
        <p className="two">This browser plays to the system's output. Guests have no captions.</p>
      </section>
      <section className="card">
        <h2>Keyboard and pointer</h2>
        <p className="two">
          In a guest every key goes to the guest. Press and let go the left <kbd>Ctrl</kbd> + <kbd>Alt</kbd> to get your keyboard back.
        </p>
        <label className="check">
          <input type="checkbox" checked={settings.shortcuts} onChange={(event) => app.set({ shortcuts: event.currentTarget.checked })} />
          <span>
            On a tile, <kbd>m</kbd> listens or mutes and <kbd>d</kbd> opens the details.
          </span>
        </label>
      </section>
      <section className="card">
        <h2>Motion</h2>
        <Choice
          of="motion"
          legend="Motion"
          options={[
            ["system", "System", "As this computer is set."],
            ["less", "Less", "Nothing fades and nothing turns."],
          ]}
        />
      </section>
    </div>
  );
}
