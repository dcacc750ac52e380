// Keeps a fault of one view away from the wall: pictures and controls go on, and the place of the view says what happened.
import { Component, type ReactNode } from "react";

export class Guard extends Component<{ view: string; children: ReactNode }, { fault?: string }> {
  override state: { fault?: string } = {};

  static getDerivedStateFromError(error: unknown): { fault: string } {
    return { fault: error instanceof Error ? error.message : String(error) };
  }

  override render(): ReactNode {
    const { fault } = this.state;
    if (fault === undefined) return this.props.children;
    return (
      <div className="view pages">
        <section className="card page" role="alert">
          <h1>The view {this.props.view} cannot be shown</h1>
          <p className="two">The wall and its pictures keep running. If the gateway was replaced, the page has to be loaded again.</p>
          <div className="code">{fault}</div>
          <button className="btn" data-act="reload" onClick={() => location.reload()}>
            Load the page again
          </button>
        </section>
      </div>
    );
  }
}
