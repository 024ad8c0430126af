/**
 * The menu of protocols: which there are, which this browser can play, which is on.
 *
 * In: the browser's abilities and the viewer's choice. Out: the choice, to the caller. It is a group of
 * native radio buttons, so keyboards and screen readers know their way around.
 */
import { PROTOCOLS, protocolDetail, protocolLabel, unavailable, type Abilities, type Protocol } from '../player/protocol';
import { byId, make } from '../page/element';

export class ProtocolMenu {
  private readonly button = byId('protocol', HTMLButtonElement);
  private readonly label = byId('protocol-label', HTMLElement);
  private readonly menu = byId('protocol-menu', HTMLElement);
  private readonly inputs = new Map<Protocol, HTMLInputElement>();

  constructor(abilities: Abilities, onChoice: (protocol: Protocol) => void) {
    for (const protocol of PROTOCOLS) this.menu.append(this.option(protocol, abilities, onChoice));
    this.button.addEventListener('click', () => this.open(!this.isOpen));
    document.addEventListener('pointerdown', (event) => {
      if (!(event.target instanceof Node) || !this.isOpen) return;
      if (!this.menu.contains(event.target) && !this.button.contains(event.target)) this.open(false);
    });
  }

  get isOpen(): boolean {
    return !this.menu.hidden;
  }

  show(protocol: Protocol): void {
    this.label.textContent = protocolLabel(protocol);
    const input = this.inputs.get(protocol);
    if (input) input.checked = true;
  }

  close(): void {
    if (!this.isOpen) return;
    this.open(false);
    this.button.focus();
  }

  private open(open: boolean): void {
    this.menu.hidden = !open;
    this.button.setAttribute('aria-expanded', String(open));
    if (open) this.menu.querySelector<HTMLInputElement>('input:checked')?.focus();
  }

  private option(protocol: Protocol, abilities: Abilities, onChoice: (protocol: Protocol) => void): HTMLLabelElement {
    const obstacle = unavailable(protocol, abilities);
    const option = make('label', 'option');
    const input = make('input');
    input.type = 'radio';
    input.name = 'protocol';
    input.value = protocol;
    input.disabled = obstacle !== null;
    input.addEventListener('change', () => onChoice(protocol));
    const words = make('span', 'option-words');
    words.append(make('b', '', protocolLabel(protocol)), make('small', '', obstacle ?? protocolDetail(protocol)));
    option.append(input, words);
    this.inputs.set(protocol, input);
    return option;
  }
}
